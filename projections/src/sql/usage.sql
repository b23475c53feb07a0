-- The stored buckets of scope $1 of tenant $2, $3 seconds long, in [$4, $5).
select bucket, used_after, users_after, peak, seat_ms, acquired, denied, released, expired, revoked, unique_users
from usage_buckets
where scope_id = $1 and seconds = $3 and bucket >= $4 and bucket < $5 and tenant_id = $2
order by bucket
