package main

import "github.com/spf13/cobra"

func newInspectCommand() *cobra.Command {
	var flags reportFlags
	cmd := parent("inspect", "Show events, streams, sagas, timeouts and the backlog",
		newInspectSagaCommand(&flags),
		newInspectSagasCommand(&flags),
		newInspectEventCommand(&flags),
		newInspectStreamCommand(&flags),
		newInspectBacklogCommand(&flags),
		newInspectTimeoutsCommand(&flags),
	)
	cmd.Long = `Reads rocketflow's tables and changes nothing.

Each service has a schema of its own. An event is in the outbox of the service that published it, and in the inbox and
among the parked events of those that handle it: look in the schema of each.`
	cmd.Example = `  rocketflow inspect backlog
  rocketflow inspect saga 4711 --schema order_rocketflow      # the example order service
  rocketflow inspect stream 4711 --schema payment_rocketflow  # the example payment service`
	flags.add(cmd)
	return cmd
}
