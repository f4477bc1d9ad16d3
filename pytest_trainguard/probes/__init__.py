"""The fixtures that cases and a team's own tests are written with: each brings one kind of trouble about.

`guard` starts any run; the others are made of it.
"""
