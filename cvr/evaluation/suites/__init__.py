"""A module for each suite of --suite: suite(subject) yields its Numbers."""
