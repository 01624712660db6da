-- The states of circuit breakers, as text that only the program reads.
CREATE TABLE moonxd_breakers (
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    -- When it was found to be unreadable; such a row is kept for whoever wants to look.
    set_aside_at TEXT
) WITHOUT ROWID;
