// Package orderclose drives the order-close flow from the outside, as customers and their banks would: orders that are
// paid in time, never, late, within milliseconds of the deadline, declined and cancelled. Once all is at rest it reads
// the services' databases and counts what must not be: events lost, effects doubled, aggregates out of order, alarms
// that went off early, and stock or money that doesn't add up.
package orderclose
