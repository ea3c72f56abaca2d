package doctor_test

import (
	"context"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow/doctor"
)

// What can't be looked at is unknown, never ok.
func ExampleDoctor_Examine() {
	d, err := doctor.New(doctor.Config{Only: []string{"postgres-primary", "broker-version"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	report := d.Examine(context.Background())
	fmt.Println(len(report.Findings()), "findings")
	for _, r := range report.Unknown() {
		fmt.Printf("%s %s: %s\n", r.Status, r.Code, r.Observed)
	}
	// Output:
	// 0 findings
	// unknown postgres-primary: no database is named
	// unknown broker-version: no name server is named
}

// Errors name the field.
func ExampleNew() {
	_, err := doctor.New(doctor.Config{Interval: time.Second})
	fmt.Println(err)
	_, err = doctor.New(doctor.Config{Only: []string{"postgres-primry"}})
	fmt.Println(err)
	// Output:
	// doctor.Config.Interval: 1s: want at least 10s
	// doctor.Config.Only: "postgres-primry" is neither a check nor a group
}

// The checks of a group, and what each looks for.
func ExampleChecks() {
	for _, c := range doctor.Checks() {
		if c.Group == doctor.Host {
			fmt.Printf("%s (%s): %s\n", c.Code, c.Severity, c.Title)
		}
	}
	// Output: host-clock (warning): The clocks of this host, of Postgres and of each broker agree
}
