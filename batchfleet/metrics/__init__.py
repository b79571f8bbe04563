"""What Prometheus can scrape from batchers and workers."""
