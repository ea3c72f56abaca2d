package rocketflowfx

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/internal/assembly"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// Database provides *pgxpool.Pool: Config.Pool, or a pool that is opened by Config.Database and closed when the application
// stops. It is not part of Module, as most applications have a pool of their own.
var Database = fx.Module("rocketflow.database", fx.Provide(newDatabase))

func newDatabase(lifecycle fx.Lifecycle, c Config) (*pgxpool.Pool, error) {
	if c.Pool != nil {
		return c.Pool, nil
	}
	if c.Database == nil {
		return nil, valid.Field("app.Config.Database", "missing: set Database or Pool, or provide a *pgxpool.Pool instead of the module Database")
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), c.Database)
	if err != nil {
		return nil, err
	}
	lifecycle.Append(fx.StartStopHook(func(ctx context.Context) error { return assembly.AwaitDatabase(ctx, pool) }, pool.Close))
	return pool, nil
}

// startStopper is a part.
type startStopper interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// migrated returns the hook of a part, whose start applies the migrations before if Config.Migrate is set. Every part does
// so, as any module may be the only one.
func migrated(c Config, pool *pgxpool.Pool, part startStopper) fx.Hook {
	return fx.StartStopHook(func(ctx context.Context) error {
		if c.Migrate {
			if err := assembly.PrepareSchema(ctx, pool, c.Schema, true); err != nil {
				return err
			}
		}
		return part.Start(ctx)
	}, part.Stop)
}
