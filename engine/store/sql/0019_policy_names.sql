-- Two policies may have the same text, and so the same digest: the file of each is kept.

ALTER TABLE policy_files DROP CONSTRAINT policy_files_pkey, ADD PRIMARY KEY (digest, name);
