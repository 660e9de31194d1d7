from tshrag_agent.shepherd.cgroups import Hierarchy, hierarchies

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
OWN = "4:memory:/a/b\n3:pids:/\n0::/c:d\n"


def test_v2_is_found_where_a_hybrid_system_has_it() -> None:
    found = hierarchies(HYBRID, OWN)
    assert Hierarchy(frozenset(), "/sys/fs/cgroup/unified/c:d") in found
    assert Hierarchy(frozenset({"memory"}), "/sys/fs/cgroup/memory/a/b") in found
    assert Hierarchy(frozenset({"pids"}), "/sys/fs/cgroup/pids") in found
    assert len(found) == 3


def test_a_container_sees_its_own_part_as_the_root() -> None:
    mount = "41 31 0:38 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate\n"
    (inside,) = hierarchies(mount, "0::/docker/abc/job\n")
    assert inside.folder == "/sys/fs/cgroup/job"
    (outside,) = hierarchies(mount, "0::/docker/abcdef\n")
    assert outside.folder == "/sys/fs/cgroup"


def test_a_mount_point_with_a_space_is_read() -> None:
    (found,) = hierarchies("1 2 0:3 / /mnt/a\\040b rw - cgroup2 none rw\n", "0::/\n")
    assert found.folder == "/mnt/a b"
