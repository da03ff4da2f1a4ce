"""The forms that sentence pairs come in: one reader a file, named by it (`base` says what a reader is).

A reader turns a source, as a sweep file names it, into records: what each row holds, whatever its columns are called. Which of
them count, and which rows are usable, is for `data/rows.py`.
"""
