package rocketflowfx

import (
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/assembly"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// Config is the configuration that the application supplies, the same as that of package app. The modules take the pool
// from the application or from the module Database, and metrics from the module Metrics unless Config.Metrics is set.
// ListenAddr and StopTimeout have no effect: HTTP servers and the time to stop are fx's and the application's.
type Config = app.Config

// shared returns the fields that all parts have in common.
func shared(c Config, pool *pgxpool.Pool, client *rocketmq.Client, m *metrics.Metrics) assembly.Shared {
	if c.Metrics != nil {
		m = c.Metrics
	}
	return assembly.Shared{Service: c.Service, Schema: c.Schema, Pool: pool, Client: client, Clock: c.Clock, Logger: c.Logger, Metrics: m, Tracing: c.Tracing}
}

func topics(c Config) []broker.Topic { return assembly.Topics(c.Topics, c.Saga.TimeoutTopic) }
