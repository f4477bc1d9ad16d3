"""One pytest session's preflight: which trainers and cases, what came of them, GO or NO-GO."""
