// Mints or verifies JWTs with jose.
//
// Reads one JSON job on standard input and writes one JSON answer: {"mint": [...]}
// is answered with tokens, {"verify": [...]} with sub, or with null for a refusal.

import { createLocalJWKSet, errors, importJWK, importPKCS8, jwtVerify, SignJWT } from 'jose'
import { text } from 'node:stream/consumers'

async function mint({ pem, jwk, alg, kid, claims }) {
  const key = pem ? await importPKCS8(pem, alg) : await importJWK(jwk)
  return new SignJWT(claims).setProtectedHeader({ alg, kid }).sign(key)
}

async function verify({ token, jwks, jwk, alg, aud, iss }) {
  const keys = jwks ? createLocalJWKSet(jwks) : await importJWK(jwk, alg)
  try {
    const { payload } = await jwtVerify(token, keys, {
      algorithms: [alg],
      audience: aud,
      issuer: iss,
      requiredClaims: ['exp', 'iat'],
    })
    return payload.sub
  } catch (error) {
    if (error instanceof errors.JOSEError) return null
    throw error
  }
}

const job = JSON.parse(await text(process.stdin))
process.stdout.write(
  JSON.stringify({
    mint: await Promise.all((job.mint ?? []).map(mint)),
    verify: await Promise.all((job.verify ?? []).map(verify)),
  }),
)
