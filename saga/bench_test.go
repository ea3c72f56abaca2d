package saga_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// A saga from its beginning to its end: three transactions of one transition each.
func BenchmarkSaga(b *testing.B) {
	pool, schema := testdb.Migrated(b)
	timer, err := timeout.New(timeout.Config{Pool: pool, Broker: noBroker{}, Schema: schema, Source: "test"})
	if err != nil {
		b.Fatal(err)
	}
	e, err := saga.New(saga.Config{Pool: pool, Schema: schema, Router: router{}, Transactor: transactor{&bundle{pool: pool}}, Consumer: "sagas", Timer: timer, TimeoutTopic: "timeouts"})
	if err != nil {
		b.Fatal(err)
	}
	s, err := saga.Register(e, orderSaga())
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for b.Loop() {
		ctx, key := b.Context(), uuid.NewString()
		err := errors.Join(
			within(ctx, pool, func(tx *testdb.Tx) error { return s.Begin(ctx, tx, key, order{PayBy: time.Now().Add(time.Hour)}) }),
			within(ctx, pool, func(tx *testdb.Tx) error { return s.Apply(ctx, tx, key, paid{key, 1}) }),
			within(ctx, pool, func(tx *testdb.Tx) error { return s.Apply(ctx, tx, key, shipped{"p", key}) }),
		)
		if err != nil {
			b.Fatal(err)
		}
	}
}
