"""The release as users get it: files are built, checked, and installed into new environments away from the source."""
