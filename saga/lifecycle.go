package saga

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/migrations"
)

const (
	maxCountedSagas  = 1000 // running sagas of one state that Start counts
	maxCountedStates = 1000 // groups of running sagas, by name, version and state, that Start reads
)

// Start checks that the engine can serve its sagas, and then begins to apply waiting events and to delete what is older
// than the retention. Start the engine before the router: the router's handlers work whether or not the engine is started.
// ctx bounds the start, not the work. Starting a started engine does nothing.
//
// Start returns an error that matches rocketflow.ErrNotMigrated if rocketflow's tables are missing, the errors of all
// definitions that Register refused, and an *UnknownSagasError if sagas run in a version or state that this program's
// definitions don't have.
func (e *Engine) Start(ctx context.Context) error {
	return e.group.Start(ctx, func(context.Context) error {
		if err := migrations.Check(ctx, e.cfg.Pool, e.cfg.Schema); err != nil {
			return fmt.Errorf("start sagas: %w", err)
		}
		if err := errors.Join(e.refusedDefinitions(), e.checkRunningSagas(ctx)); err != nil {
			return fmt.Errorf("start sagas: %w", err)
		}
		e.group.Go(e.applyDueLoop)
		e.group.Go(e.recheckLoop)
		if e.cfg.Retention >= 0 {
			e.group.Go(e.retentionLoop)
		}
		return nil
	})
}

// Stop ends the work that Start began, including the statement that runs, and waits for it until ctx ends. Stopping a
// stopped engine does nothing.
func (e *Engine) Stop(ctx context.Context) error {
	defer e.repeated.Flush()
	if err := e.group.Stop(ctx); err != nil {
		return fmt.Errorf("stop sagas: %w", err)
	}
	return nil
}

// checkRunningSagas returns an *UnknownSagasError if sagas run in versions or states that the registered definitions don't
// have. It logs a warning for running sagas without a registered definition.
func (e *Engine) checkRunningSagas(ctx context.Context) error {
	rows, err := lazytx.On(e.cfg.Pool).Query(ctx, e.sql.Get("RunningStates"), int32(maxCountedSagas), int32(maxCountedStates))
	if err != nil {
		return fmt.Errorf("read states of sagas: %w", err)
	}
	groups, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (g UnknownSagas, err error) {
		err = row.Scan(&g.Saga, &g.Version, &g.State, &g.Count)
		return g, err
	})
	if err != nil {
		return fmt.Errorf("read states of sagas: %w", err)
	}
	registered := e.registry()
	var unknown []UnknownSagas
	for _, g := range groups {
		s := registered[g.Saga]
		if s == nil {
			e.cfg.Logger.Warn("sagas run that have no definition in this process; their events are handled by another process, or not at all. "+
				"Register the definition, or end these sagas",
				keySaga, g.Saga, keyVersion, g.Version, keyState, g.State, keySagas, g.Count)
			continue
		}
		if g.Reason, g.Known = s.unknown(g.Version, g.State); g.Reason != "" {
			unknown = append(unknown, g)
		}
	}
	if len(unknown) > 0 {
		return &UnknownSagasError{unknown}
	}
	return nil
}

// forEachRow runs a statement in a transaction of its own, scans each row into dest, and calls fn. It returns the number of
// rows.
func (e *Engine) forEachRow(ctx context.Context, query string, args, dest []any, fn func() error) (n int64, err error) {
	err = lazytx.InTx(ctx, e.cfg.Pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, e.sql.Get(query), args...)
		if err != nil {
			return err
		}
		tag, err := pgx.ForEachRow(rows, dest, fn)
		n = tag.RowsAffected()
		return err
	})
	return n, err
}

// loop repeats work until ctx ends, with the pause that work returns. 0: no pause.
func (e *Engine) loop(ctx context.Context, work func(ctx context.Context) time.Duration) {
	background.Loop{Clock: e.cfg.Clock}.Run(ctx, work)
}
