// Package rocketflowtest runs services of rocketflow in a Go test: on an embedded broker, in a database schema of their own
// on a real PostgreSQL, and with one clock that the test moves. Use it to test a flow from the first event to the last
// timeout, with the services as they are, and without sleeping.
//
//	func TestUnpaidOrderCloses(t *testing.T) {
//		env := rocketflowtest.New(t)
//		orders := env.Start(rocketflowfx.Config{Service: "orders", Topics: topics}, order.Module)
//
//		orders.Publish(OrderPlaced{ID: "o-1"})
//		env.FastForward(30 * time.Minute) // takes a tenth of a second
//
//		if closed := rocketflowtest.Events[OrderClosed](env); len(closed) != 1 {
//			t.Errorf("closed: %v", closed)
//		}
//	}
//
// Under go test -race one line more is needed, because the RocketMQ client has data races of its own:
//
//	func TestMain(m *testing.M) {
//		rocketflowtest.SuppressClientRaces()
//		m.Run()
//	}
//
// Without it [New] fails a test that the race detector watches, and its message says so. See [SuppressClientRaces] for what
// is still reported, which is every race of your code.
//
// # Settling
//
// [Env.Settle] and [Env.FastForward] return when no work is left at the present instant: every recorded event has reached
// the broker and is settled by each of its consumers, every timeout that is due has fired, and every retry that is due was
// made. Work that is still left after [Config].SettleTimeout fails the test with a list of it.
//
// # PostgreSQL
//
// The server is the one that the environment variable DATABASE_URL names. If it is not set, the first test of the process
// starts one from the installed programs, or from programs that are downloaded once; it stops with the last test.
// `rocketflow dev -- go test ./...` starts one server for all packages, which is faster.
//
// # The clock
//
// The broker's timers, rocketflow's tables and the SQL of the services all read the same clock. SQL reads it through
// clock_timestamp, now, statement_timestamp and transaction_timestamp, called by these names on the connections of
// [Service].Pool; CURRENT_TIMESTAMP and its like cannot be moved. Go code reads it from [Env.Clock]. A service that opens
// its own pool has to keep the search_path of [Env.DatabaseURL].
package rocketflowtest
