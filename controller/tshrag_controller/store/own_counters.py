"""Counters of single orgs, maintained as those of the whole lab are."""


def own_counter(org: str, name: str) -> str:
    """Return the name of a counter of what is of one org; none of the whole lab begins so."""
    return f"@{org}/{name}"


FIRST_COUNT = """
    INSERT INTO counters SELECT '@' || org || '/runs', count(*) FROM runs GROUP BY org;
    INSERT INTO counters SELECT '@' || org || '/runs.' || state, count(*)
        FROM runs WHERE ended_at > 0 GROUP BY org, state;
    INSERT INTO counters SELECT '@' || r.org || '/jobs', count(*)
        FROM jobs j JOIN runs r ON j.run = r.no GROUP BY r.org;
    INSERT INTO counters SELECT '@' || r.org || '/jobs.' || j.state, count(*)
        FROM jobs j JOIN runs r ON j.run = r.no WHERE j.ended_at > 0 GROUP BY r.org, j.state;
    INSERT INTO counters SELECT '@' || r.org || '/attempts', count(*)
        FROM attempts a JOIN runs r ON a.run = r.no GROUP BY r.org;
    CREATE TEMP TABLE setups AS SELECT r.org, json_extract(CAST(a.ended AS TEXT), '$[17]') what,
        json_extract(CAST(a.ended AS TEXT), '$[18]') us
        FROM attempts a JOIN runs r ON a.run = r.no WHERE a.ended IS NOT NULL;
    INSERT INTO counters SELECT '@' || org || '/setups.' || what, count(*)
        FROM setups WHERE what > '' GROUP BY org, what;
    INSERT INTO counters SELECT '@' || org || '/setup_us.' || what, sum(us)
        FROM setups WHERE what > '' AND us > 0 GROUP BY org, what;
    DROP TABLE setups;
"""
"""Count once what was written before orgs had counters; setups stand at their places in `Ended`."""
