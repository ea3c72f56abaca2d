// Package doctor examines what a service stands on: the host, PostgreSQL, RocketMQ, and rocketflow's tables in it. It finds
// settings under which rocketflow's promises don't hold, and work that stands still. The command `rocketflow doctor` is built on
// it; use the package for tools of your own, or to examine a running service again and again and export the findings as metrics.
//
//	d, err := doctor.New(doctor.Config{
//		Databases: []doctor.Database{{Pool: pool}},
//		Broker:    &doctor.Broker{NameServers: []string{"127.0.0.1:9876"}},
//	})
//	if err != nil {
//		return err
//	}
//	report := d.Examine(ctx)
//	for _, f := range report.Findings() {
//		fmt.Println(f.Code, f.Subject, f.Observed, f.Mend)
//	}
//
// # Answers
//
// A check looks at one subject: the host, a database, a schema, a RocketMQ, or one thing of these, such as a consumer. It gives
// one of three answers: OK, Finding, or Unknown. Unknown means that the check could not look, because a server is away, a right is
// missing, or nobody said what is needed; it is never shown as OK. [Checks] lists all checks. Their codes don't change, and each
// has a section in docs/doctor.md.
//
// # What an examination does
//
// An examination reads. Its statements run in read-only transactions with a timeout, use indexes or end at a limit, and wait for
// no lock of the application; its requests to brokers are queries. Only with Config.Probe it sends something: a half message to each
// topic that the service publishes to, which it rolls back at once, so that no consumer sees it. Each check ends after
// Config.CheckTimeout, the whole examination after Config.Timeout.
//
// No result contains a password, a secret key, the body of an event, or the text of a statement of the application.
package doctor
