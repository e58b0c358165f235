-- Lakekeeper's store, on the same server.
create database lakekeeper;
