-- What scope $1 of tenant $2 held when $4 began: what the last bucket before it left. $3: seconds of a bucket.
select used_after, users_after from usage_buckets
where scope_id = $1 and seconds = $3 and bucket < $4 and tenant_id = $2
order by bucket desc limit 1
