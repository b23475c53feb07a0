-- The changes of limits of tenant $1, or of its license $2, before $3.
select since, license_id, seats_total, active from license_limits
where tenant_id = $1 and ($2::uuid is null or license_id = $2) and since < $3
order by since, license_id, version
