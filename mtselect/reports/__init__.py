"""What a study leaves for people to read: tables, figures, pages, cards.

Values in, texts and figures out: nothing here runs a stage or asks a server.
"""
