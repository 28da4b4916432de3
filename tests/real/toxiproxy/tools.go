//go:build tools

// Package tools pins the Toxiproxy server that the tests bend their links with.
package tools

import _ "github.com/Shopify/toxiproxy/v2/cmd/server"
