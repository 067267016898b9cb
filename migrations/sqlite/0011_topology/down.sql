DROP TABLE topology_edge;
DROP TABLE topology_component;
DROP TABLE topology;
