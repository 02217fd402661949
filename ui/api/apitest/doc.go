// Package apitest is a client of the API as oapi-codegen makes it from
// openapi.yaml: proof that the document is good enough for that. Tests use it;
// no program does. `make generate` makes client.gen.go again.
package apitest
