"""Work that outlives a call: kept in a database, done once, watched from anywhere."""
