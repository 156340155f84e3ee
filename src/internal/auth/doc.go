// Package auth tells who calls. Local checks Basic credentials itself, against argon2id hashes of the profiles; Gateway
// believes what an APISIX gateway says, and nobody else (design section 5, "Who is calling").
package auth
