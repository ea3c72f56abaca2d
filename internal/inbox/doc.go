// Package inbox holds all SQL of consumers: their registration, the positions of their streams, the inbox, parked events
// and dead letters, and the retention of all of them. Package handlers uses it to handle events, and package operate for the
// actions of operators.
//
// [Store] runs the statements for a schema, [Consumer] those for one consumer in it. Methods whose names begin with Queue add
// a statement to a batch. Its result is written to their arguments when the caller reads the batch's results.
//
// # Locks
//
// Locks are taken in one order: positions by key, then the inbox by id, then parked rows of streams whose positions are
// locked. A transaction that parks or removes an event of a stream has locked the stream's position, so it sees all others
// that have done so. All transactions are at Read Committed ([ReadCommitted]): a statement after a lock must see what the
// previous holder of the lock has committed.
package inbox
