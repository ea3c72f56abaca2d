// Package console tests the web console in a Chromium: each page, light and dark, narrow and wide, without JavaScript, by keyboard alone,
// and with a check of accessibility. It is a module of its own, so that rocketflow doesn't depend on chromedp. It contains only tests.
package console
