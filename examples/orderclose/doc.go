// Package orderclose is a load generator and verifier for the order and the payment service. It sends requests as customers
// and their banks would: orders that are paid in time, never, late, within milliseconds of the deadline, declined and
// cancelled. When all events are handled it reads the services' databases and counts what must not happen: events lost,
// effects doubled, events out of order, deadlines that fired early, and stock or money that doesn't add up.
package orderclose
