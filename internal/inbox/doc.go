// Package inbox holds all SQL of consumers: their registration, the positions of their streams, the inbox, parked events
// and dead letters, and the retention of all of them. Package handlers runs events with it, and package operate does with
// it what operators ask for.
//
// [Store] is the SQL of a schema, [Consumer] that of one consumer in it. Methods whose names begin with Queue add a
// statement to a batch and write its outcome to where their arguments say when the caller reads the batch's results.
//
// # Locks
//
// Locks are taken in one order: positions by key, then the inbox by id, then parked rows of the streams whose positions are
// held. Whoever parks an event of a stream, or takes one out, holds its position, so neither can miss the other. All
// transactions are at Read Committed ([ReadCommitted]): a statement after a lock must see what the one who held the lock
// before has committed.
package inbox
