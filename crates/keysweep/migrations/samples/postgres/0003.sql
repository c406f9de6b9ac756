-- A token that is good and one that has ended, and a signature that may not come again.

INSERT INTO token (hash, account_id, project_id, issued_at, expires_at) VALUES
    ('\x0101', 'a0000000000000000000000000000001', '0123456789abcdef0123456789abcdef', 1767225600000000, 1767312000000000),
    ('\x0102', 'a0000000000000000000000000000002', '0123456789abcdef0123456789abcdef', 1767139200000000, 1767225600000000);

INSERT INTO seen_signature (signature, expires_at) VALUES ('\x0a0b', 1767226500000000);
