"""Files that lie elsewhere: s3://, gs://, hf:// and https://, through fsspec."""
