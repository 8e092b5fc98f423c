"""What others measured and published, held against expected times; nothing is fitted to a single figure."""
