"""Boards as things with states: power, bootloader, shell; virtual ones too."""
