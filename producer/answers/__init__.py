"""Answers as they were written -> the file that was asked for.

The answers file (`producer.answers.answers_file`) stays what is durable; these are made from it.
"""
