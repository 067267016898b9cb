DROP TABLE kill_switch;
DROP TABLE target_lock;
DROP TABLE execution;
DROP TABLE approval_token;
DROP TABLE approval_vote;
DROP TABLE approval;
