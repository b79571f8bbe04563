"""From answer lines to the requested file.

The answers file (`producer.answers.answers_file`) stays what is durable; these are made from it.
"""
