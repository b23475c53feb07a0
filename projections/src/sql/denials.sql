-- Denials of tenant $1 after the instant ($2, $3), at most $4, in [$5, $6), of user $7.
select * from denials_view
where tenant_id = $1
  and (denied_at, position) > (coalesce($2::timestamptz, '-infinity'), coalesce($3::bigint, 0))
  and denied_at >= coalesce($5::timestamptz, '-infinity') and denied_at < coalesce($6::timestamptz, 'infinity')
  and ($7::text is null or user_id = $7)
order by denied_at, position limit $4
