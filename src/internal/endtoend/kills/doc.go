// Package kills goes through the table of failpoints: each program of an installation is killed between any two steps of what it
// does, and started again. What must hold then is judged by what clients were told, and by what the functions themselves told the
// test while they ran. It has tests only: a few cases by default, all of them with -every.
package kills
