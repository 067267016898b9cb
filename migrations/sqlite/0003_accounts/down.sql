DROP TABLE idempotency;
DROP TABLE api_key;
DROP TABLE session;
DROP TABLE user_account;
