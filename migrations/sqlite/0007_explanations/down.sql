DROP TABLE explanation;
