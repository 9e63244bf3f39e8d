"""A small style profile that test files begin with."""

GOOD = """\
name: mine
what: mine alone
style:
- name: ending
  weight: 0.7
  ends: [やで]
tone_base: 0.4
tone:
- name: ending
  weight: 0.5
  ends: [ねん]
  after: 2
  first: false
"""
