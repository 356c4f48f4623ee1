"""The files of an SQLite database: who may read them, whether they still exist, and recovery from a deleted one."""
