//go:build tools

// Package tools pins the old Faktory server, without PUSHB, that the tests run against.
package tools

import _ "github.com/contribsys/faktory/cmd/faktory"
