"""Fuzzing of whatever reads untrusted text: one small file a group of parsers, each target with the laws that it checks.

``python -m fuzz`` runs them under atheris (pip install 'holdfast[fuzz]'); ``tests/test_fuzz.py`` runs the same by hypothesis.
"""
