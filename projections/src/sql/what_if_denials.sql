-- The refusals for want of a seat of license $2 of tenant $1 in [$3, $4), at most $5: user and time.
select user_id, denied_at from denials_view
where tenant_id = $1 and license_id = $2 and denied_at >= $3 and denied_at < $4 and reason = 'no_seats_available'
order by denied_at, position limit $5
