-- The states of circuit breakers, as text that only the program reads.
CREATE TABLE moonxd_breakers (
    name text PRIMARY KEY,
    state text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- When it was found to be unreadable; such a row is kept for whoever wants to look.
    set_aside_at timestamptz
);
