"""One HTML file that tells a study: its headline, its pictures, its tables, and how to do it again."""
