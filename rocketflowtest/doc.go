// Package rocketflowtest runs services in a test: with an embedded broker, a schema of their own in a real PostgreSQL, and
// one clock that the test moves, for the broker's timers, rocketflow's tables and the service's own SQL alike.
//
//	func TestUnpaidOrderCloses(t *testing.T) {
//		w := rocketflowtest.New(t)
//		orders := w.Start(rocketflowfx.Config{Service: "orders", Topics: topics}, order.Module)
//
//		orders.Publish(OrderPlaced{ID: "o-1"})
//		w.FastForward(30 * time.Minute)
//
//		if closed := rocketflowtest.Events[OrderClosed](w); len(closed) != 1 {
//			t.Errorf("closed: %v", closed)
//		}
//	}
//
// Nothing here sleeps: FastForward and Settle return when nothing is left to do at the present instant, that is when
// every event has reached the broker and each of its consumers, every timeout that is due has fired, and every retry
// that is due was made. What doesn't come to rest fails the test with a list of what is left.
//
// PostgreSQL is the one that DATABASE_URL names. Where that is not set one is started from the installed programs, or
// from programs that are fetched once; `rocketflow dev -- go test ./...` starts one for all packages, which is faster.
//
// # The clock
//
// Postgres' functions clock_timestamp, now, statement_timestamp and transaction_timestamp show the moved time to all SQL
// that calls them by these names on the connections of Service.Pool. CURRENT_TIMESTAMP and its like can't be moved. Go
// code that asks for the time gets the moved one from World.Clock. The pools that a service opens itself must take over
// the search_path of World.DatabaseURL.
package rocketflowtest
