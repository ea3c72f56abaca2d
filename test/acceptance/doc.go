// Package acceptance tests what no single package can: all parts together, on PostgreSQL and a broker, with bad input, slow
// check-backs, payments that race their deadlines, rolling deployments, failovers and broker outages. It contains only tests.
package acceptance
