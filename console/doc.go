// Package console is a web console for the operators of one or more services: what each owes, what waits and why, what happened to an
// event, and the actions that mend it. It is an http.Handler; `rocketflow console` serves it on this machine.
//
//	c, err := console.New(console.Config{
//		Services:  []console.Service{{Operator: operator}},
//		Prefix:    "/ops/rocketflow",
//		Authorize: func(r *http.Request) (console.Viewer, error) { return viewerOf(r) },
//	})
//	if err != nil {
//		return err
//	}
//	if err := c.Start(ctx); err != nil {
//		return err
//	}
//	defer c.Stop(context.WithoutCancel(ctx))
//	mux.Handle("/ops/rocketflow/", c)
//
// # Access
//
// It is closed by default: Config.Authorize decides about each request, and New fails without it. The zero Viewer may read everything
// but the bodies and headers of events and the data of sagas. What it may change is a list of actions.
//
// Pages have no inline script or style and say so by a Content-Security-Policy. A request of another origin that would change something is
// refused. Text of events is shown as text: neither HTML nor characters that reorder a line have an effect.
//
// # Cost
//
// The overview of each service is read once a second while somebody looks at it, and every 10 s otherwise, whatever the number of viewers;
// less often if it takes long. Other reads are shared for a second. Lists are paged by key, and a page looks at a bounded number of rows.
// There is no SQL here: package operate reads.
package console
